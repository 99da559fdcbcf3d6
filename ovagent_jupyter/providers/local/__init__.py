"""Models that run on the user's own machine, and the engines that run them."""
