"""`rbstream replay`: the pipeline over files."""
