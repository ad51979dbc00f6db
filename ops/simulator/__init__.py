"""A provider to charge against: strict, observable, and as ill as it is told to be."""
