// Hosts that are this machine, as specs name them.
export const loopback = /^(127(\.\d{1,3}){3}|::1|localhost)$/
