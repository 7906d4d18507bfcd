"""Where data sets come from: packets, stacks of numpy's, FITS cutouts, other data sets, the simulator."""
