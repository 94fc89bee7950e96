"""The recipe that turns a text file into the starter's weights."""
