"""A recorded run of the repository's demo, replayed without models: for a first look, for tests and for screenshots."""
