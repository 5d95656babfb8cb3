"""Helpers that several test files share; nothing here is a test."""
