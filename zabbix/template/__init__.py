"""What the Zabbix template is made of: tables to read, and how they become YAML."""
