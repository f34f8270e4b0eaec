"""Line API widgets, which know nothing of runs."""
