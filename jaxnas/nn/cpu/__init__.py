"""Formulations and C++ that only CPUs run; the README says what each gains."""
