//! May this node serve? Scripts and the own proxy, reduced to a verdict and a weight.
