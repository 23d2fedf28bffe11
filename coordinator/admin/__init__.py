"""What operators may ask and change, the same from this machine and from another."""
