"""The state machine of test_transitions.py: its model and its rules, by who acts."""
