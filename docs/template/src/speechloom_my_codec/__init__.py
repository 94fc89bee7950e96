"""Mu-law means of eight blocks per frame as codes, a plugin for speechloom."""
