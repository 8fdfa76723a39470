import { useSearch } from '@tanstack/react-router';

import { LoginPage } from './login-page';

export function LoginRoute() {
  const { next } = useSearch({ from: '/login' });
  return <LoginPage next={next} />;
}
