"""The controlled data set: made posts and their drawings."""
