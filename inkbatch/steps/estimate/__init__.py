"""Time and money of an inference before it starts: measured rates, earlier runs, the network on this device."""
