"""Seconds and money: price table, measured rates, estimates beside real runs."""
