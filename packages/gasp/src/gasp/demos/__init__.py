"""Scripted demonstrators: what they do is recorded, nothing is learnt from them but skills."""
