"""Line API widgets that know nothing of runs: they draw what they are given."""
