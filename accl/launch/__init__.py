"""Starting, finding and stopping training processes."""
