"""Bundled scenarios, service profiles and length tables. Data only."""
