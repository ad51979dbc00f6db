"""Attacks on the promises, and the checker that judges: histories, faults, evidence, verdict."""
