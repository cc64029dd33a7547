// Sets the remembered theme before the first paint. A classic script, since modules run after it.
try {
  const theme = localStorage.getItem('roadshow.theme');
  if (theme === 'light' || theme === 'dark') document.documentElement.dataset.theme = theme;
} catch {
  // Without storage the page follows the system.
}
