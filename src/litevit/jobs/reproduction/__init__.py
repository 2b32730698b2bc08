"""`litevit reproduce`: every published figure, measured on the user's own data sets with the official weights."""
