"""Recorded workflow executions in WfFormat: read, measured, made into definitions, compared with runs of ours."""
