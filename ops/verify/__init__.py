"""Proofs that anyone can repeat: what the topics say, held against the limit and against PostgreSQL."""
