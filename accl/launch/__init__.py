"""Starting and stopping training processes, and checking what they need."""
