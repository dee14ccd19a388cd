"""Estimates: arithmetic that can be followed by hand, from a table that can be replaced."""

from __future__ import annotations

import pytest

from inkbatch.errors import ConfigError
from inkbatch.run.prices import PRICES_VARIABLE, machines, price_text

TABLE = """
machines:
  box: {gpu: "1 x T", bf16_tflops: 100, on_demand: 2.0, spot: [0.5, 1.0], as_of: "2026-11", source: "a test"}
"""


def test_seconds_and_money_follow_from_flops(tmp_path, monkeypatch):
    (tmp_path / "prices.yaml").write_text(TABLE)
    monkeypatch.setenv(PRICES_VARIABLE, str(tmp_path / "prices.yaml"))
    assert machines()["box"].seconds(36e15) == pytest.approx((900, 2400))  # 36e15 / 40e12 and / 15e12
    line = "box (1 x T): 15 min to 40 min, 0.12 to 1.33 USD"  # 900 s of spot at 0.5, 2400 s on demand at 2.0
    assert price_text("box", machines()["box"], 36e15) == line
    assert price_text("box", machines()["box"], 36e12) == "box (1 x T): under a minute, under 0.01 USD"


def test_every_shipped_price_says_when_and_where_it_was_read():
    assert len(machines()) >= 3
    assert all(machine.as_of and machine.source for machine in machines().values())


def test_a_table_that_cannot_be_read_is_named(tmp_path, monkeypatch):
    (tmp_path / "prices.yaml").write_text("machines: {box: {gpu: x}}")
    monkeypatch.setenv(PRICES_VARIABLE, str(tmp_path / "prices.yaml"))
    with pytest.raises(ConfigError, match="prices.yaml"):
        machines()
