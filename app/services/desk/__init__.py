"""Those who run the installation (admins) and help its users (support staff)."""
