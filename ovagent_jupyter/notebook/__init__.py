"""The notebook face: magics, the turn card, the user's variables."""
