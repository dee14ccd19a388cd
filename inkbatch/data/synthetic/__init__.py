"""Made data of known truth: phantoms and vessel profiles."""
