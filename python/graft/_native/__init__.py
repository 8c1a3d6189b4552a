"""The compiled module, in a folder of its own: programs that it starts are found beside that folder."""
