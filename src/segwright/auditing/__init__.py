"""What is wrong with the data, before a minute is spent on training: looked at once, asked question by question."""
