"""The life of an order: states, decisions, steps and drivers."""
