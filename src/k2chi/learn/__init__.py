"""How networks are taught: data made on the fly, losses, and one training loop."""
