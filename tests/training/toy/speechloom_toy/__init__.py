"""A plugin that can be trained in a second: a voice of four numbers."""
