"""The command line `umec`: a module for each noun, imported when it is used."""
