"""What a drawn picture is made of: a canvas, backgrounds, and one file for each entity type.

Every drawing function takes a canvas and a source of chance, draws, and returns the words for
what it drew, so that captions are true by construction.
"""
