"""speechloom."""
