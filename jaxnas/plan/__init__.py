"""What a run would need on machines that are not there, before it is paid."""
