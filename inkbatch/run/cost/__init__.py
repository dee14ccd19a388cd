"""Seconds and money: the price table and measured rates."""
