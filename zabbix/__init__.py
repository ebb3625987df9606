"""The template for Zabbix, and what makes it."""
