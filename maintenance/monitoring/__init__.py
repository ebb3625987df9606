"""Telling Zabbix: its trapper protocol, the outbox's delivery, discovery."""
