"""THE AGREEMENT: who pays, for what, at which price, over which periods."""
