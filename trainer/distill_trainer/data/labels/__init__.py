"""A data set's labels: found, checked, kept in one file of flat arrays, and shared by all processes of a node."""
