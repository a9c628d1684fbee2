"""What no library has: ports of published models, each in a package of its own."""
