module mcpproxy

go 1.25
