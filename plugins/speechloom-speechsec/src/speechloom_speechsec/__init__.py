"""SpeechSEC: one masked network that synthesizes, continues, edits and converts speech.

Importing the package imports no torch; the network is in `speechloom_speechsec.model`.
"""
