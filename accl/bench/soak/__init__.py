"""`accl bench soak`: injections of faults into real processes, for minutes or hours, and a count of what survived."""
