"""The commands that have more to say than fits into cli.py: arguments, and what is printed."""
