"""CNI: the networks of this node and the plugins that attach pods to them."""
