"""The line searches and L-BFGS; imports nothing above this folder."""
