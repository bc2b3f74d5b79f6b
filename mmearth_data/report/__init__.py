"""The data half of the report: where the locations lie, whether they balance, what is absent, how tiles look."""
